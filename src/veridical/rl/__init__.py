"""Policy gradient on rewards of the model's own answers: GRPO, RLOO and PPO; `veridical.rl(...)` trains."""

from veridical.callables import callable_as

callable_as(__name__, "veridical.api:rl")
