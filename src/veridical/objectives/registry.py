"""Objectives by name. Adding one means a file in this folder and a line here."""

from __future__ import annotations

from veridical.objectives.base import Objective
from veridical.registry import Own, Registry, lacks


def _own(module: str, attribute: str, summary: str, source: str = "") -> Own:
    return Own(f"veridical.objectives.{module}:{attribute}", summary, source)


OBJECTIVES: Registry[type[Objective]] = Registry(
    kind="objective",
    group="veridical.objectives",
    own={
        "dpo-nll": _own("dpo_nll", "DpoNll", "DPO with a likelihood term on the chosen answers", "2404.19733"),
        "dpo": _own("dpo", "Dpo", "direct preference optimisation", "2305.18290"),
        "sft": _own("sft", "Sft", "fine-tuning on the chosen answers: the control"),
        "apo": _own(
            "apo", "Apo", "each side by itself: anchored preference optimisation, NCA", "2408.06266, 2402.05369"
        ),
        "chip": _own("chip", "Chip", "answers, segments, tokens and images in one sigmoid", "2501.16629"),
        "ddpo": _own("ddpo", "Ddpo", "dense DPO: the tokens that were corrected weigh more", "RLHF-V, 2312.00849"),
        "dpop": _own("dpop", "Dpop", "DPO that keeps chosen answers from becoming less likely", "2402.13228"),
        "fine-grained": _own("fine_grained", "FineGrained", "token rewards from minimal edits", "2406.02756"),
        "halva": _own("halva", "Halva", "phrases against the hallucinated ones in their place", "2405.18654"),
        "hinge": _own("hinge", "Hinge", "the hinge of SLiC on log-ratios", "2305.10425"),
        "ipo": _own("ipo", "Ipo", "identity preference optimisation, which stops at a margin", "2310.12036"),
        "kto": _own("kto", "Kto", "each side by itself against a reference point", "2402.01306"),
        "mdpo": _own("mdpo", "Mdpo", "DPO with a term for the image and an anchor", "2406.11839"),
        "mpo": _own("mpo", "Mpo", "mixed: preference, quality of each side, generation", "2411.10442"),
        "opa-dpo": _own("opa_dpo", "OpaDpo", "sentences weigh by how wrong they were, a masked image", "2501.09695"),
        "orpo": _own("orpo", "Orpo", "fine-tuning with an odds-ratio term, without a reference", "2403.07691"),
        "povid": _own("povid", "Povid", "POVID's second stage: negatives made while training", "2402.11411"),
        "re-align": _own("re_align", "ReAlign", "DPO with a term for an image that was retrieved", "2502.13146"),
        "rpo": _own("rpo", "Rpo", "every chosen answer of a batch against every rejected one", "2402.10958"),
        "selm": _own("selm", "Selm", "DPO with optimism about the model's own answer", "2405.19332"),
        "simpo": _own("simpo", "Simpo", "likelihood per token and a target margin, without a reference", "2405.14734"),
        "spa": _own("spa", "Spa", "DPO, smoothed for the pairs that the policy is least sure of", "2406.04412"),
        "svco": _own("svco", "Svco", "attend to the image that is there, reject one that is not", "2502.13928"),
        "vdpo": _own("vdpo", "Vdpo", "DPO of a policy that is guided by the image", "2411.02712"),
    },
    check=lambda made: lacks(made, ("needs", "loss")),
)


def objective_type(name: str) -> type[Objective]:
    """The settings class of the objective called `name`, or at that place. Raises UserError where there is none."""
    return OBJECTIVES.get(name, "objective.name")
