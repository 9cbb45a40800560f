"""Recipes: a table of a paper as a plan of runs, its run, and what was expected beside what was obtained."""
