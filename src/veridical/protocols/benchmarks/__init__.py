"""Published benchmarks, one file each: what to ask, how to read an answer, how to count; to the letter of the official
scorer, with other harnesses' rules as named variants."""
