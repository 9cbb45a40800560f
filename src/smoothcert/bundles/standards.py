"""A table of texts on robust AI: what a bundle may be cited for under each, and what not."""

from typing import NamedTuple

from smoothcert.report.tables import Page, Table


class Clause(NamedTuple):
    """A clause, what it is about in our words, and what a bundle is and is not evidence of under it."""

    text: str
    about: str
    evidence: str
    limits: str


CLAUSES = (
    Clause("ISO/IEC TR 24029-1:2021",
           "Overview. Sorts methods of assessing the robustness of neural networks into statistical, formal and "
           "empirical ones.",
           "A store of certify applies a theorem (formal) to probabilities that are bounded from counted votes "
           "(statistical). A store of predict is statistical, a store of attack empirical.",
           "The choice of a robustness goal, of metrics and of thresholds for a use: that is yours, and a requirement "
           "that was checked says no more than that a number was reached."),
    Clause("ISO/IEC 24029-2:2023, 5.2 and 5.3",
           "Formal methods: the domain of a property, and stability, an answer that does not change over a domain.",
           "For each certified input: the answer of the smoothed classifier is stable on the l2 ball of the certified "
           "radius, except with probability alpha. Inputs, noise level and classifier are stated and hashed.",
           "A proof without error: each certificate may be false with probability alpha at most. In the terms of 6.2.1 "
           "the method is incomplete (an input that was not certified may be stable), non-deterministic, and treats "
           "the network as a closed box. Sensitivity, relevance and reachability (5.4 to 5.6) are not assessed."),
    Clause("Regulation (EU) 2024/1689 (AI Act), Article 15(1) and (3)",
           "High-risk systems: appropriate levels of accuracy, robustness and cybersecurity; levels and metrics of "
           "accuracy are declared in the instructions for use.",
           "Figures that can be declared: accuracy and certified accuracy with confidence limits for new inputs drawn "
           "like these, and how they were measured.",
           "That a level is appropriate for the purpose, or is kept throughout the lifecycle. Conformity with Article "
           "15, or that a system is or is not a high-risk one."),
    Clause("AI Act, Article 15(4)",
           "Resilience to errors, faults and inconsistencies within the system or its environment.",
           "A fault that changes an input by less than the certified radius in l2 norm, whatever its cause, does not "
           "change the answer of the smoothed classifier, except with probability alpha.",
           "Faults of other parts, larger or other changes, drift, redundancy, and feedback loops of systems that go "
           "on learning."),
    Clause("AI Act, Article 15(5)",
           "Resilience against third parties who exploit vulnerabilities; among these adversarial examples (model "
           "evasion).",
           "A limit on model evasion, at the stated confidence, for every attack that changes an input by less than "
           "the radius in l2 norm. Stores of attack say what the attacks that were tried found.",
           "Poisoned data or models, attacks on confidentiality, patches, rotations and other large changes; measures "
           "to detect, respond or recover. Nothing is said of the network used without the noise."),
    Clause("NIST AI RMF 1.0, MEASURE 2.5",
           "The system is demonstrated to be valid and reliable; limits of generalisation are documented.",
           "Accuracy and certified accuracy with limits for new inputs, the data they are of, the classes that were "
           "not seen, and the assumptions of each figure.",
           "Validity for the intended use, and figures for other populations than the data were drawn from."),
    Clause("NIST AI RMF 1.0, MEASURE 2.6",
           "Safety: risks are evaluated, residual risk is tolerable, the system can fail safely.",
           "Metrics of robustness, and the share of inputs from which the smoothed classifier abstains in place of an "
           "answer that its votes do not decide.",
           "That a system is safe, or a risk tolerable. To abstain is no detector of foreign inputs: one far from the "
           "data may be answered with certainty. Monitoring and response times are not measured."),
    Clause("NIST AI RMF 1.0, MEASURE 2.7",
           "Security and resilience are evaluated and documented.",
           "Certified and empirical accuracy under bounded changes of the input, documented with hashes, and open to "
           "be computed and drawn again by others.",
           "Other threats to the model, and the security of the system around it."),
)

INTRODUCTION = (
    "This page says what the figures of this bundle may be cited for under some texts on robust AI, and what they may "
    "not. It is not legal advice, and no statement of conformity: smoothcert measures, and who is responsible for a "
    "system decides and declares. The middle columns are our words; the texts themselves are what counts.")

CLOSING = (
    "Everything here is about the smoothed classifier (the majority over all noise of the stated level; of a "
    "regression, a percentile over it), the stated norm, and inputs like those that were measured. A system in use votes over finitely many noisy copies: its answer "
    "is that of the smoothed classifier only with the confidence of its own vote, and else an abstention. Choices that "
    "were made after a look at the outcomes, such as another radius, another alpha or the best of several runs, are "
    "not covered by any limit.")


def standards_page() -> Page:
    """Return the page: an introduction, the table, and what is true of all of it."""
    heads = ["text", "what it is about", "a bundle is evidence of", "a bundle is not evidence of"]
    table = Table.of(heads, [list(clause) for clause in CLAUSES], left=range(len(heads)))
    return Page([INTRODUCTION, table], legend=CLOSING)
