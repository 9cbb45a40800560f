#!/usr/bin/env bash
# A fitted random forest with n_jobs gives other probabilities for the same rows from call to call, in the last bit,
# and with them another class.
#
# One would guess: predict_proba of a fitted scikit-learn forest is a function of its input; n_jobs=-1 only makes it
# faster, and any randomness ended with fit (random_state is set).
# What happens (scikit-learn 1.9.1): the threads add their trees' shares to one array in the order in which they
# finish. Sums of floats depend on the order, so the probabilities of classes that tie differ in the last bit, now one
# above, now the other, and argmax changes for some rows. With n_jobs=None, or under
# joblib.parallel_config("sequential"), every call gives the same bits.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet scikit-learn==1.9.1 joblib==1.6.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import numpy as np
import sklearn
from joblib import parallel_config
from sklearn.ensemble import RandomForestClassifier

print("scikit-learn", sklearn.__version__)
rng = np.random.default_rng(0)
x, y = rng.random((400, 16)), rng.integers(0, 3, 400)
forest = RandomForestClassifier(90, max_depth=4, random_state=0, n_jobs=4).fit(x, y)
rows = rng.random((20_000, 16))


def answers(calls=25):
    return [forest.predict_proba(rows) for _ in range(calls)]


def changed(found):
    first = found[0]
    return (max(int((first != other).any(axis=1).sum()) for other in found),
            max(float(np.abs(first - other).max()) for other in found))


threads = changed(answers())
with parallel_config("sequential"):
    alone = changed(answers(5))
print(f"n_jobs=4: up to {threads[0]} of {len(rows)} rows differ between calls, by up to {threads[1]:.1e}")
print(f"sequential: {alone[0]} rows differ")
assert threads[0] > 0 and threads[1] < 1e-12, threads
assert alone[0] == 0, alone
PY
# Seen: thousands of rows differ, by about 1e-16; sequential: 0 rows differ.
