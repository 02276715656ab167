"""Values from outside that change over simulated time: solar, carbon, price, and their forecasts."""
