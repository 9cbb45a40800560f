"""A bill of materials in CycloneDX: models with their figures, data sets, manifests, and the packages that made them.

cyclonedx-python-lib makes the document. It has no model cards, so these are put into its JSON, all values as text.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any

from smoothcert.bundles.card import CARD
from smoothcert.bundles.stores import BundledStore, list_limits
from smoothcert.errors import FileError
from smoothcert.results.figures import sigma_words
from smoothcert.results.metrics import DIGITS, Metric
from smoothcert.store.identity import Identity
from smoothcert.store.identity_parts import DataIdentity
from smoothcert.version import __version__

BOM = "bom.cdx.json"
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def write_bom(title: str, stores: Sequence[BundledStore], figures: Sequence[Sequence[Metric]], rho: float,
              manifests: Sequence[str], time: datetime | None) -> str:
    """Return the document, whose serial number follows from its content.

    Args:
        figures: of each store. rho: failure probability of each of their limits.
        manifests: the SHA-256 of each store's manifest.
        time: of the document; None leaves it out.
    Raises:
        FileError: the document is not what its schema asks for.
    """
    document = _Document(title, rho, time)
    cards: dict[str, list[_Use]] = {}
    for one, metrics, digest in zip(stores, figures, manifests, strict=True):
        data, model = document.add_data(one.store.identity), document.add_model(one)
        document.add_manifest(one, digest, [model, *data, *document.add_packages(one)])
        cards.setdefault(model.bom_ref.value, []).append((one, metrics, [part.bom_ref.value for part in data]))
    content = document.content()
    for component in content["components"]:
        if (uses := cards.get(component["bom-ref"])) is not None:
            component["modelCard"] = _write_card(uses)
        elif (data := document.data.get(component["bom-ref"])) is not None:
            component["data"] = [_write_data(data)]
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    text = json.dumps({**content, "serialNumber": number.urn}, indent=2, sort_keys=True) + "\n"
    check_bom(text)
    return text


def check_bom(text: str) -> None:
    """Raise FileError unless a text is a CycloneDX document as the schema has it; nothing is fetched for that."""
    version = import_module("cyclonedx.schema").SchemaVersion.V1_6
    problem = import_module("cyclonedx.validation.json").JsonStrictValidator(version).validate_str(text)
    if problem is not None:
        raise FileError(f"{BOM} is not as CycloneDX has it: {str(problem).partition(chr(10))[0]}")


class _Document:
    """A document of cyclonedx-python-lib that is filled, each component once.

    Attributes:
        data: the data set of each component that is one, by its reference.
    """

    def __init__(self, title: str, rho: float, time: datetime | None) -> None:
        self._model, self._component = import_module("cyclonedx.model"), import_module("cyclonedx.model.component")
        self._kinds = self._component.ComponentType
        self._known: dict[tuple[str, str], Any] = {}
        self.data: dict[str, DataIdentity] = {}
        self._bom = import_module("cyclonedx.model.bom").Bom()
        about = self._bom.metadata
        about.timestamp = time
        about.tools.components.add(self._component.Component(
            name="smoothcert", version=__version__, type=self._kinds.APPLICATION))
        about.properties.add(self._model.Property(name="smoothcert:rho", value=f"{rho:g}"))
        about.component = self._component.Component(name=title, type=self._kinds.DATA, bom_ref="bundle")
        self._stores: list[Any] = []

    def content(self) -> dict[str, Any]:
        """Return the document as JSON, without a serial number."""
        self._bom.register_dependency(self._bom.metadata.component, self._stores)
        found = json.loads(import_module("cyclonedx.output.json").JsonV1Dot6(self._bom).output_as_string())
        del found["serialNumber"]  # a random one
        return found

    def _add(self, kind: str, identity: Any, told: Mapping[str, Any] | None = None, **fields: Any) -> Any:
        """Return the component of a kind with this identity: the one that is there, or a new one; `told` are its
        properties."""
        key = (kind, json.dumps(identity, sort_keys=True))
        if key not in self._known:
            number = 1 + sum(known == kind for known, _ in self._known)
            properties = [self._model.Property(name=f"smoothcert:{name}", value=str(value))
                          for name, value in (told or {}).items() if value not in (None, "")]
            self._known[key] = self._component.Component(bom_ref=f"{kind}-{number}", properties=properties, **fields)
            self._bom.components.add(self._known[key])
        return self._known[key]

    def add_data(self, identity: Identity) -> list[Any]:
        """Return the component of the inputs that a store is of; none where it does not say."""
        data = identity.data_or_none
        if not isinstance(data, DataIdentity):
            return []
        found = self._add("data", [data.raw, identity.images.raw], {"images": json.dumps(identity.images.raw)},
                          name=data.name, type=self._kinds.DATA)
        self.data[found.bom_ref.value] = data
        return [found]

    def add_model(self, one: BundledStore) -> Any:
        """Return the component of a smoothed classifier: a base classifier and the noise."""
        identity, name = one.store.identity, one.store.provenance.model or f"classifier of {one.name}"
        base, noise, (task, _) = identity.model_or_none, identity.noise, _describe_task(identity)
        name = f"{name}, smoothed at sigma {sigma_words(noise.sigma)}" if base else name
        told = {"base.by": base and base.by, "base.sha256": base and base.sha256, "base.id": base and base.id,
                "noise": noise.kind, "sigma": sigma_words(noise.sigma), "precision": identity.precision}
        references = [
            self._model.ExternalReference(type=self._model.ExternalReferenceType[kind], url=self._model.XsUri(file))
            for kind, file in (("MODEL_CARD", CARD), ("EVIDENCE", "index.html"))]
        return self._add("model", [base.raw if base else one.place, noise.raw, identity.precision, task], told,
                         name=name, external_references=references, type=self._kinds.MACHINE_LEARNING_MODEL)

    def add_manifest(self, one: BundledStore, digest: str, needs: Sequence[Any]) -> None:
        """Add a store by its manifest, and what it was made with."""
        identity = one.store.identity
        told = {"kind": identity.kind, "identity": identity.digest, "records": one.store.num_records,
                "seed": identity.seed_or_none, "procedure": json.dumps(identity.procedure.raw, sort_keys=True)}
        hashed = self._model.HashType(alg=self._model.HashAlgorithm.SHA_256, content=digest)
        found = self._add("store", one.place, told, name=f"{one.place}/manifest.json", type=self._kinds.FILE,
                          hashes=[hashed])
        self._bom.register_dependency(found, needs)
        self._stores.append(found)

    def add_packages(self, one: BundledStore) -> list[Any]:
        """Return the components of the packages that a store says it was made with."""
        purl = import_module("packageurl").PackageURL
        known = {name: version for name, version in one.store.provenance.versions.items()
                 if _PACKAGE.fullmatch(name) and isinstance(version, str) and version}
        return [self._add("package", [name, version], name=name, version=version,
                          type=self._kinds.PLATFORM if name == "python" else self._kinds.LIBRARY,
                          purl=purl("generic" if name == "python" else "pypi", name=name, version=version))
                for name, version in known.items()]


_Use = tuple[BundledStore, Sequence[Metric], list[str]]
"""A store of a smoothed classifier, its figures, and the references of its data."""


def _write_card(uses: Sequence[_Use]) -> dict[str, Any]:
    """Return the model card of a smoothed classifier by the stores that are of it."""
    identity = uses[0][0].store.identity
    data = identity.data_or_none
    inputs = [{"format": f"float32 {tuple(data.shape)}"}] if isinstance(data, DataIdentity) else []
    task, output = _describe_task(identity)
    refs = dict.fromkeys(ref for _, _, data in uses for ref in data)
    return {
        "modelParameters": {"task": task, "datasets": [{"ref": ref} for ref in refs], "inputs": inputs,
                            "outputs": [{"format": output}]},
        "quantitativeAnalysis": {"performanceMetrics": [
            _write_metric(metric, one) for one, metrics, _ in uses for metric in metrics]},
        "considerations": {"technicalLimitations": list_limits([one for one, _, _ in uses])},
    }


def _describe_task(identity: Identity) -> tuple[str, str]:
    """Return the task of the runs of an identity, and what answers it, in words."""
    return {
        "regression": ("regression", f"{identity.num_classes} numbers, each a percentile over the noise"),
        "multi-label": ("multi-label classification", "a set of labels"),
    }.get(identity.kind, ("classification", f"one of {identity.num_classes} classes, or an abstention"))


def _write_metric(metric: Metric, one: BundledStore) -> dict[str, Any]:
    """Return a figure with its limit; certificates bound it from below alone, and a share is at most 1."""
    setting = ", ".join(f"{name} {value}" for name, value in metric.setting.items() if value is not None)
    limits = {} if metric.at_least is None else {"confidenceInterval": {
        "lowerBound": f"{metric.at_least:.{DIGITS}f}", **({"upperBound": "1"} if metric.is_share else {})}}
    return {"type": metric.name, "value": f"{metric.value:.{DIGITS}f}", "slice": f"{one.place}: {setting}", **limits}


def _write_data(data: DataIdentity) -> dict[str, Any]:
    told = {"split": data.split, "shape": " x ".join(map(str, data.shape)), "sha256": data.sha256}
    return {"type": "dataset", "name": data.name, "contents": {
        "properties": [{"name": f"smoothcert:{name}", "value": value} for name, value in told.items()]}}
