"""Devices that behave: nodes whose power follows their load and their cap, and the meters that show them.

Everything here is meant to be reached as the real thing is: over Modbus, and over a control socket in place of the
node's own power management. Nothing here knows the agent: each side states the register map for itself.
"""
