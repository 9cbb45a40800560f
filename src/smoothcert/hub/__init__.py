"""Model directories and stores on the Hugging Face hub: what goes there, what is taken from there, and the card.

A model directory is a model repository, with its certificates in the folder `certificates`; a store by itself is a
dataset repository.
"""
