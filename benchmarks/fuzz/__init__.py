"""A campaign of damaged and hostile inputs: `python -m benchmarks.fuzz`, from the project's folder."""
