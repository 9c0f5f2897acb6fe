"""How the bundled model was trained; `python -m veridical.world.base.train` does it again."""
