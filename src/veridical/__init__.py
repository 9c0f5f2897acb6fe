"""veridical: make vision-language models say only what they see."""

__version__ = "0.1.0"
