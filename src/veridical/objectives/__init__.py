"""What training minimises: one file a loss family, each a pure function over log-probabilities."""
