"""Whether this installation can be trusted: classifiers of known p_A and radius, certified on this machine."""
