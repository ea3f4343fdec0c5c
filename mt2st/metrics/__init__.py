"""Metric definitions, each with an id, a unit and a direction."""
