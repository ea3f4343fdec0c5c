"""Cases: how a benchmark's data, model, objectives and measurements are put together.

Heavy; imported when a recipe runs.
"""
