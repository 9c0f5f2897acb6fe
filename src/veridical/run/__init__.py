"""The whole path from images to a report, as steps that are `veridical` commands."""
