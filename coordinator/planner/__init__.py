"""Decides jobs, inference, batteries and grid together: instance, model, solver, plan, check and baselines.

Units follow the exchange format: kW, kWh, kg and a currency per kWh; site values here are directions, all ≥ 0.
"""
