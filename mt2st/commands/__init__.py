"""What `python -m mt2st` can do; a module here each, with `add_arguments` and `run`."""

COMMANDS = ("predict", "search", "export")
