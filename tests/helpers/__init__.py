"""What many tests need: drawn sets, small models, layouts of published sets."""
