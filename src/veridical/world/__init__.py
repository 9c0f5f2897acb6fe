"""The picture world: seeded scenes with full annotations, and the small model that makes things up about them."""
