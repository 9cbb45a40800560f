"""Checks of this installation: classifiers of known p_A and radius, certified on this machine."""
