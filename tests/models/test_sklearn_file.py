"""Models of scikit-learn in files of skops."""

import hashlib
import zipfile

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from smoothcert.errors import FileError, ModelError
from smoothcert.models import load_model
from smoothcert.smoothing import base_classifier

skops = pytest.importorskip("skops.io")

X, Y = load_wine(return_X_y=True)
MODELS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "forest": lambda: RandomForestClassifier(4, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=3),
    "mlp": lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=300, tol=1e-2, random_state=0)),
    "calibrated": lambda: CalibratedClassifierCV(LinearSVC(), cv=2),
    "neighbours": KNeighborsClassifier,
    "ridge": RidgeClassifier,  # has a decision function alone
    "centroid": lambda: make_pipeline(StandardScaler(), NearestCentroid()),
}
NEED_TRUST = {"forest": "sklearn.tree._tree.Tree", "boosting": "predictor.TreePredictor", "neighbours": "KDTree"}


@pytest.fixture(scope="module", params=MODELS)
def written(request, tmp_path_factory):
    """Return the name of a fitted model, the model, and its file."""
    model = MODELS[request.param]().fit(X, Y)
    file = tmp_path_factory.mktemp("skops") / "m.skops"
    skops.dump(model, file)
    return request.param, model, file


def sha(file):
    return hashlib.sha256(load_model(f"sklearn:{file}", trust=True).content).hexdigest()


def test_votes_are_the_models_own_in_any_batch(written):
    _, model, file = written
    run = base_classifier(load_model(f"sklearn:{file}", input_shape=(13,), trust=True).model, 3)
    rows = torch.from_numpy(X.astype(np.float32))
    whole = run(rows)
    assert (whole.argmax(dim=1).numpy() == model.predict(X.astype(np.float32))).mean() > .99  # a tie may fall otherwise
    for size in (1, 3, 100):
        assert torch.equal(torch.cat([run(batch) for batch in rows[:101].split(size)]), whole[:101])


def test_types_that_may_do_harm_need_trust(written):
    name, _, file = written
    if name in NEED_TRUST:
        with pytest.raises(ModelError, match=rf"(?s){NEED_TRUST[name]}.*--trust"):
            load_model(f"sklearn:{file}")
    else:
        load_model(f"sklearn:{file}")


def test_another_dump_is_the_same_model_and_another_fit_is_not(written, tmp_path):
    name, _, file = written
    skops.dump(skops.load(file, trusted=skops.get_untrusted_types(file=file)), tmp_path / "again.skops")
    assert (tmp_path / "again.skops").read_bytes() != file.read_bytes()
    assert sha(tmp_path / "again.skops") == sha(file)
    skops.dump(MODELS[name]().fit(X[1:], Y[1:]), tmp_path / "other.skops")
    assert sha(tmp_path / "other.skops") != sha(file)


def rewrite(file, to, old, new):
    """Copy a file of skops with other words in its schema."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(to, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, content.replace(old, new) if name == "schema.json" else content)


def test_files_that_cannot_be_used(tmp_path):
    import sklearn

    file, other = tmp_path / "m.skops", tmp_path / "o.skops"
    skops.dump(MODELS["logistic"]().fit(X, Y), file)
    with pytest.raises(ModelError, match=r"takes 13 features, and the inputs have 12"):
        load_model(f"sklearn:{file}", input_shape=(12,))
    rewrite(file, other, sklearn.__version__.encode(), b"0.24.2")
    with pytest.raises(ModelError, match=r"written by scikit-learn 0\.24\.2.*install scikit-learn==0\.24\.\*"):
        load_model(f"sklearn:{other}", trust=True)
    rewrite(file, other, b'"sklearn.preprocessing._data"', b'"os"')
    with pytest.raises((ModelError, FileError)):
        load_model(f"sklearn:{other}")
    other.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FileError, match="not a file of skops, or is damaged"):
        load_model(f"sklearn:{other}")
    with pytest.raises(FileError, match=r"is a pickle, which runs code .*skops\.io\.dump"):
        load_model(f"sklearn:{tmp_path / 'm.joblib'}", trust=True)
    skops.dump([1, 2], other)
    with pytest.raises(ModelError, match="holds a list, which has no predict"):
        load_model(f"sklearn:{other}")


def test_a_regressor_is_a_function(tmp_path):
    model = Ridge().fit(X, Y)
    skops.dump(model, tmp_path / "m.skops")
    loaded = load_model(f"sklearn:{tmp_path / 'm.skops'}").model
    np.testing.assert_allclose(loaded(torch.from_numpy(X)), model.predict(X)[:, None], rtol=1e-12)


def test_named_columns_reach_the_model_that_was_fitted_on_them(tmp_path):
    pandas = pytest.importorskip("pandas")
    from sklearn.compose import make_column_transformer

    names = [f"c{i}" for i in range(13)]
    table = pandas.DataFrame(X, columns=names)
    model = make_pipeline(make_column_transformer((StandardScaler(), ["c3", "c0"])), LogisticRegression()).fit(table, Y)
    skops.dump(model, tmp_path / "m.skops")
    scores = load_model(f"sklearn:{tmp_path / 'm.skops'}").model.predict_proba(X)
    np.testing.assert_allclose(scores, model.predict_proba(table))
