"""What people say who do not know the field's words, by what the field calls it.

A concept has the terms that stand in titles and docstrings, the problem of `tikhon.core.card.PROBLEMS` that it is a
case of ("" for none), and phrases of everyday language. A phrase is found in a question where all of its words stand
there, in any order; "a|b" is either of two. Words are compared by `tikhon.report.search.stem`, so that one form of each
will do. A single word that means many things in daily life is no phrase. To teach the search a new way of asking, add a
phrase here.
"""

from __future__ import annotations

from typing import NamedTuple


class Concept(NamedTuple):
    terms: str
    problem: str
    phrases: tuple[str, ...]


GLOSSARY = (
    Concept(
        "noisy labels label noise wrong labels memorisation",
        "noisy-labels",
        (
            "scraped|crawled|automatic|heuristic|weak label|tag|class",
            "label|tag|annotation nobody|never|not verified|checked|reviewed",
            "tag|class|target|answer wrong|incorrect|unreliable",
            "human|expert|doctor|rater disagree|mistake|error",
            "label wrong|incorrect|false|noisy|bad|dirty|corrupt|flipped|unreliable|mistake|error|trust",
            "annotator|annotation|crowd mistake|wrong|error|disagree|noisy|sloppy|bad",
            "mislabelled|mislabeled|mislabel",
            "class assigned|given wrong|incorrect",
        ),
    ),
    Concept(
        "overfitting generalise regularise few samples",
        "overfitting",
        (
            "only|just patient|subject|participant|hundred|dozen|study|cohort",
            "small|little|tiny study|cohort|set|sample|collection|corpus",
            "good|perfect|well train|training bad|poor|worse|fail new|unseen|test",
            "fit|fits perfectly|noise|everything",
            "memorise|memorises|memorize",
            "learn heart",
            "little|few|small|scarce|tiny data|dataset|sample|example",
            "overfit|overfitting",
            "generalise|generalize|generalisation|generalization",
            "train|training perfect|better|good|low validation|test|poor|worse|bad",
        ),
    ),
    Concept(
        "calibration confidence overconfident probabilities",
        "calibration",
        (
            "99|100|percent wrong|idea|even|sure|certain",
            "high|full|great confidence|certainty wrong|mistake|unjustified",
            "confident wrong|mistake",
            "honest|realistic uncertainty|probability",
            "know|admit not|when unsure|uncertain|know",
            "too sure|certain|confident",
            "sure itself",
            "overconfident|overconfidence",
            "probability|confidence|score trust|trusted|meaningless|honest|reliable",
        ),
    ),
    Concept(
        "forgetting continual learning sequence of tasks earlier tasks",
        "forgetting",
        (
            "no longer know|speak|recognise|recognize|can|work|able",
            "used know|recognise|recognize|work|able",
            "keep|retain|preserve old|earlier|previous|skill|ability",
            "add|adding new class|classes|task|language later|without",
            "unlearn|overwrite old|previous|earlier",
            "forget|forgets old|earlier|before|previous|learned|first",
            "new task|skill old|forget|forgets|previous",
            "task after|sequence|sequentially|one",
            "catastrophic",
            "lifelong|continual|incremental",
            "losing|lose|loses|keep know|knows|knowledge",
        ),
    ),
    Concept(
        "domain shift domains invariant distribution",
        "shift",
        (
            "work|works|fine|good|trained summer|winter|day|night|simulation|synthetic|laboratory|indoor|outdoor",
            "real world",
            "user|users|customer|customers new|other|different country|group|market|region",
            "microscope|machine|instrument|vendor|manufacturer new|other|different|another",
            "train|training test different|differ|unlike",
            "drift|drifts|drifting",
            "camera|sensor|scanner|hospital|country|site|weather|device|lighting different|change|another|other|new",
            "different|differ|another|changed|new domain|distribution|environment|source|place",
            "production|deployed|deployment|world worse|fail|differ|break",
            "background|shortcut|spurious",
            "adapt test time|stream",
        ),
    ),
    Concept(
        "adversarial attack perturbation robust radius",
        "robustness",
        (
            "sticker|pixel|typo|noise change|flip|alter prediction|answer|output|decision",
            "hack|hacker|evade|manipulate",
            "robust|stable small|tiny input|change|perturbation",
            "fool|fools|fooled|trick",
            "attack|attacker|adversary|malicious",
            "tiny|small|slight change|perturbation|noise answer|prediction|picture|input|output",
        ),
    ),
    Concept(
        "certified bounds interval proof robustness",
        "robustness",
        ("prove|proof|guarantee|certify|certified no|input|perturbation|change|robust",),
    ),
    Concept(
        "pruning sparse smaller compression quantised",
        "compression",
        (
            "battery|watch|mobile|raspberry|drone|browser|fpga|sensor run|fit|must|limited",
            "less|reduce|save memory|storage|parameter|energy|latency",
            "half|fraction size|parameter|weight",
            "too big|large|heavy|slow phone|device|edge|deploy|deployment|memory|model|network",
            "smaller|shrink|compress|compact model|network",
            "phone|microcontroller|embedded|edge",
            "remove|delete|cut neuron|channel|filter|unit|weight",
            "faster|speed inference",
        ),
    ),
    Concept(
        "quantised integers bits integer arithmetic",
        "compression",
        ("few|fewer|low bit|precision", "integer|int8|quantise|quantize|quantised", "8|4|2 bit|bits"),
    ),
    Concept(
        "distillation teacher student soft targets",
        "",
        (
            "knowledge|teach|copy big|large|teacher small|student|smaller",
            "teacher student",
            "distil|distill|distillation",
        ),
    ),
    Concept(
        "gradient clipping clip norm diverge instability",
        "stability",
        (
            "nan|inf|infinite|diverge|diverges|explode|explodes|exploding|unstable|blow",
            "loss spike|spikes|jump|suddenly",
            "depends|differs seed|luck",
        ),
    ),
    Concept(
        "unlearning forget training data deleted",
        "privacy",
        (
            "delete|erase|remove|forget customer|user|person|personal|sample|record|data trained|network|model",
            "right forgotten",
            "influence|trace certain|sample|data remove|delete",
            "privacy|private|gdpr",
        ),
    ),
    Concept(
        "imbalance rare classes worst group minority easy samples",
        "imbalance",
        (
            "fraud|defect|disease|failure|anomaly rare|one|few|hardly",
            "one thousand|million|hundred",
            "always predict|predicts majority|same|frequent|common",
            "minority|subgroup|worst",
            "class|group|category rare|few|handful|minority|underrepresented|ignored",
            "imbalance|imbalanced|unbalanced|skewed|tail",
        ),
    ),
    Concept(
        "semi-supervised unlabelled pseudo-labels consistency",
        "",
        (
            "annotate|annotating|labelling|labeling|label|annotation expensive|costly|slow|time",
            "raw|unannotated photo|image|text|data|recording",
            "only|few some labelled|labeled|annotated rest|other|remaining",
            "without|no|missing|un label|labels many|most|some|improve",
            "unlabelled|unlabeled classifier|use|labelled|improve|picture|data",
        ),
    ),
    Concept(
        "self-supervised representations views embedding without labels",
        "",
        ("feature|representation|embedding without|no|any label", "self supervised"),
    ),
    Concept(
        "mixing mixed pairs of samples interpolation of inputs and labels",
        "",
        (
            "blend|mix|interpolate|combine|average two|sample|image|picture|hidden|label",
            "patch|piece paste|swap|another",
        ),
    ),
    Concept(
        "cutout erasing mask square region of images",
        "",
        (
            "part|object|face|piece cover|covered|hidden|hide|occlude|occluded|block|blocked",
            "occlusion|occlusions",
            "blank|hide|mask|erase|cover|remove part|square|patch|region|area|block image|picture|random|feature",
        ),
    ),
    Concept(
        "dropout random units zero",
        "",
        (
            "neuron|unit|feature rely|depend|adapt each|other|another",
            "co adapt|adaptation",
            "random|randomly drop|skip|disable|off|zero|deactivate",
            "drop|skip layer|channel|unit|neuron|block",
        ),
    ),
    Concept("stochastic depth residual blocks skipped", "", ("skip|drop layer|layers|block|blocks",)),
    Concept(
        "early stopping stop epoch validation",
        "",
        ("when|how long stop|train|epoch|epochs", "how many epoch|epochs"),
    ),
    Concept(
        "weight averaging exponential moving average of weights",
        "",
        (
            "ensemble|snapshot training|path|epoch|model",
            "smooth|smoothed weight|weights|parameters",
            "average|averaging weight|weights|checkpoint|checkpoints|model|models",
        ),
    ),
    Concept(
        "weight decay norm of weights penalty",
        "",
        ("large|big|small|keep weight|weights penalise|penalize|punish|shrink|small",),
    ),
    Concept(
        "sharpness flat minima perturbation of weights",
        "",
        (
            "loss landscape|surface",
            "sharp|curvature minimum|minima|loss|solution|hessian",
            "flat|sharp minimum|minima|valley|loss|solution",
        ),
    ),
    Concept(
        "sparsity zero weights soft threshold",
        "",
        ("weight|weights zero|sparse", "sparse|sparsity"),
    ),
    Concept(
        "transfer fine-tuning pretrained starting weights",
        "",
        ("fine tune|tuning|tuned", "pretrained|pre trained|foundation", "finetune|finetuning"),
    ),
    Concept(
        "low rank adapters fine-tuning principal singular vectors",
        "",
        ("low rank", "lora", "adapter|adapters", "few parameter fine|large|train"),
    ),
    Concept(
        "preference optimisation preferred answers language model reference",
        "",
        ("human|people|user|users preference|preferences|prefer|feedback|like", "align language", "rlhf"),
    ),
    Concept(
        "optimal transport cost plan entropic",
        "",
        (
            "move|moving|transport mass|distribution|distributions",
            "earth mover",
            "match|compare two distribution|distributions",
        ),
    ),
    Concept(
        "out-of-distribution outliers unknown classes",
        "",
        ("unknown|unseen|strange|novel|anomaly|known no|class|input|inputs|detect", "outlier|outliers"),
    ),
    Concept(
        "data pruning hardest samples subset of training data",
        "",
        ("which|throw|discard|drop|skip|useless sample|samples|example|examples away|needed|keep|train|training",),
    ),
    Concept(
        "symmetry equivariance group of transformations",
        "",
        ("rotate|rotation|rotations|mirror|flip|symmetry|symmetric|invariant",),
    ),
    Concept(
        "disentangled latents sources modular",
        "",
        ("disentangle|disentangled|disentanglement", "latent|latents each|one factor|meaning|source|variable"),
    ),
    Concept(
        "differential equation solver ordinary",
        "",
        ("differential equation", "ode|odes", "continuous time|depth"),
    ),
    Concept(
        "inverse problem blur deconvolution total variation reconstruction",
        "",
        (
            "reconstruct|restore|recover|deblur image|signal|picture|blurred|measurement|measurements",
            "deblur|deblurring",
        ),
    ),
    Concept(
        "spectral norm largest singular value Lipschitz",
        "",
        ("singular value|values", "lipschitz", "sensitive|smooth input|inputs network|function"),
    ),
    Concept(
        "batch normalisation statistics small batches",
        "",
        ("batch norm|normalisation|normalization", "small|tiny batch|batches"),
    ),
    Concept(
        "grokking delayed generalisation",
        "",
        ("grok|grokking", "long after test|validation|generalise|train"),
    ),
    Concept(
        "diffusion model generative alignment of features",
        "",
        ("diffusion", "generate|generative image|images|picture|model"),
    ),
)
