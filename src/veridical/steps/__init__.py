"""Steps that are `veridical` commands: run in the order that they need each other, and continued after a kill."""
