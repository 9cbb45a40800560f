"""Studies that need images or a model, and give arrays. Nothing here draws; `smoothcert.report` does."""
