"""How other tools write a model's answers: one file for each tool, recognised by its shape."""
