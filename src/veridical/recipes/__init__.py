"""Published methods as recipes: the steps of a paper with its settings, run by one command."""
