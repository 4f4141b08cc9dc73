# Written by `make stubs`: what the package holds, for type checkers and editors. ruff: noqa: I001
from tikhon import data as data
from tikhon.blocks.quantization.aqt import AQTQuantizer as AQTQuantizer
from tikhon.blocks.stochastic.subsampled_attention import SubsampledAttention as SubsampledAttention
from tikhon.blocks.structure.latent_quant import LatentQuantizer as LatentQuantizer
from tikhon.blocks.structure.neural_ode import NeuralODE as NeuralODE
from tikhon.core.card import Card as Card
from tikhon.core.combine import During as During
from tikhon.core.combine import OneOf as OneOf
from tikhon.core.errors import Diverged as Diverged
from tikhon.core.errors import TikhonError as TikhonError
from tikhon.core.fit import History as History
from tikhon.core.fit import fit as fit
from tikhon.core.losses import ClassLoss as ClassLoss
from tikhon.core.losses import CustomLoss as CustomLoss
from tikhon.core.losses import Loss as Loss
from tikhon.core.losses import OutputLoss as OutputLoss
from tikhon.core.losses import ValueLoss as ValueLoss
from tikhon.core.losses import no_loss as no_loss
from tikhon.core.memory import PerSampleMemory as PerSampleMemory
from tikhon.core.method import Method as Method
from tikhon.core.parameters import Selected as Selected
from tikhon.core.parameters import Snapshot as Snapshot
from tikhon.core.parameters import Where as Where
from tikhon.core.parameters import select as select
from tikhon.core.queue import Queue as Queue
from tikhon.core.recipe import Recipe as Recipe
from tikhon.core.step import Step as Step
from tikhon.core.step_mean import StepMean as StepMean
from tikhon.core.strength import Schedule as Schedule
from tikhon.core.strength import Strength as Strength
from tikhon.core.strength import cosine as cosine
from tikhon.core.strength import exponential as exponential
from tikhon.core.strength import linear as linear
from tikhon.core.strength import logistic as logistic
from tikhon.core.strength import stepwise as stepwise
from tikhon.core.target import Part as Part
from tikhon.core.target import Target as Target
from tikhon.core.terms import Term as Term
from tikhon.core.terms import Terms as Terms
from tikhon.measures.activation_hash import ActivationHash as ActivationHash
from tikhon.measures.activation_hash import activation_hash as activation_hash
from tikhon.measures.activation_hash import neural_codes as neural_codes
from tikhon.measures.activation_hash import redundancy as redundancy
from tikhon.measures.adversarial_strength import BoundaryTilt as BoundaryTilt
from tikhon.measures.adversarial_strength import adversarial_strength as adversarial_strength
from tikhon.measures.adversarial_strength import deviation_cosine as deviation_cosine
from tikhon.measures.adversarial_strength import hyperplane_distances as hyperplane_distances
from tikhon.measures.bootstrap import bootstrap_interval as bootstrap_interval
from tikhon.measures.calibration import PlainReliability as PlainReliability
from tikhon.measures.calibration import Reliability as Reliability
from tikhon.measures.calibration import adaptive_calibration_error as adaptive_calibration_error
from tikhon.measures.calibration import classwise_calibration_error as classwise_calibration_error
from tikhon.measures.calibration import debiased_calibration_error as debiased_calibration_error
from tikhon.measures.calibration import expected_calibration_error as expected_calibration_error
from tikhon.measures.calibration import maximum_calibration_error as maximum_calibration_error
from tikhon.measures.calibration import reliability as reliability
from tikhon.measures.confident_learning import ConfidentLearning as ConfidentLearning
from tikhon.measures.confident_learning import confident_joint as confident_joint
from tikhon.measures.confident_learning import confident_learning as confident_learning
from tikhon.measures.corruption import CorruptionRobustness as CorruptionRobustness
from tikhon.measures.corruption import corruption_robustness as corruption_robustness
from tikhon.measures.dead_units import UnitUse as UnitUse
from tikhon.measures.dead_units import unit_use as unit_use
from tikhon.measures.difficulty import TrainingDynamics as TrainingDynamics
from tikhon.measures.difficulty import below_fake_margins as below_fake_margins
from tikhon.measures.difficulty import el1n as el1n
from tikhon.measures.difficulty import el2n as el2n
from tikhon.measures.difficulty import forgetting_events as forgetting_events
from tikhon.measures.difficulty import grand as grand
from tikhon.measures.difficulty import last_layer_gradient_norms as last_layer_gradient_norms
from tikhon.measures.difficulty import max_margin as max_margin
from tikhon.measures.difficulty import sum_margin as sum_margin
from tikhon.measures.difficulty import training_dynamics as training_dynamics
from tikhon.measures.duplicates import Duplicates as Duplicates
from tikhon.measures.duplicates import NearDuplicates as NearDuplicates
from tikhon.measures.duplicates import exact_duplicates as exact_duplicates
from tikhon.measures.duplicates import near_duplicates as near_duplicates
from tikhon.measures.early_stopping import EarlyStopping as EarlyStopping
from tikhon.measures.effective_rank import LayerRanks as LayerRanks
from tikhon.measures.effective_rank import effective_rank as effective_rank
from tikhon.measures.effective_rank import layer_ranks as layer_ranks
from tikhon.measures.effective_rank import stable_rank as stable_rank
from tikhon.measures.generalisation import GeneralisationGap as GeneralisationGap
from tikhon.measures.generalisation import gap_over_seeds as gap_over_seeds
from tikhon.measures.generalisation import generalisation_gap as generalisation_gap
from tikhon.measures.ibp_tightness import certified_accuracy as certified_accuracy
from tikhon.measures.ibp_tightness import ibp_tightness as ibp_tightness
from tikhon.measures.imbalance import GroupAccuracy as GroupAccuracy
from tikhon.measures.imbalance import accuracy_by_class as accuracy_by_class
from tikhon.measures.imbalance import accuracy_by_group as accuracy_by_group
from tikhon.measures.imbalance import class_counts as class_counts
from tikhon.measures.imbalance import effective_number as effective_number
from tikhon.measures.imbalance import imbalance_ratio as imbalance_ratio
from tikhon.measures.infomec import InfoMEC as InfoMEC
from tikhon.measures.infomec import compactness as compactness
from tikhon.measures.infomec import infomec as infomec
from tikhon.measures.infomec import modularity as modularity
from tikhon.measures.infomec import mutual_information as mutual_information
from tikhon.measures.logits import LogitHistory as LogitHistory
from tikhon.measures.logits import collapsed_share as collapsed_share
from tikhon.measures.logits import confidence as confidence
from tikhon.measures.logits import logit_scale as logit_scale
from tikhon.measures.logits import overconfidence as overconfidence
from tikhon.measures.loki import frechet_predict as frechet_predict
from tikhon.measures.loki import frechet_scores as frechet_scores
from tikhon.measures.loss_mixture import LossMixture as LossMixture
from tikhon.measures.loss_mixture import loss_mixture as loss_mixture
from tikhon.measures.margins import Margins as Margins
from tikhon.measures.margins import linear_margins as linear_margins
from tikhon.measures.margins import margins as margins
from tikhon.measures.memorisation import Memorisation as Memorisation
from tikhon.measures.memorisation import WrongLabels as WrongLabels
from tikhon.measures.memorisation import memorisation as memorisation
from tikhon.measures.memorisation import memorisation_scores as memorisation_scores
from tikhon.measures.memorisation import wrong_labels_fitted as wrong_labels_fitted
from tikhon.measures.neural_collapse import Collapse as Collapse
from tikhon.measures.neural_collapse import alignment as alignment
from tikhon.measures.neural_collapse import collapse as collapse
from tikhon.measures.neural_collapse import collapsed_features as collapsed_features
from tikhon.measures.neural_collapse import simplex_deviation as simplex_deviation
from tikhon.measures.neural_collapse import variability as variability
from tikhon.measures.proper_scores import BrierDecomposition as BrierDecomposition
from tikhon.measures.proper_scores import brier_decomposition as brier_decomposition
from tikhon.measures.proper_scores import brier_score as brier_score
from tikhon.measures.proper_scores import negative_log_likelihood as negative_log_likelihood
from tikhon.measures.refined_schedule import GradientNorms as GradientNorms
from tikhon.measures.refined_schedule import closed_form as closed_form
from tikhon.measures.refined_schedule import median_smoothed as median_smoothed
from tikhon.measures.refined_schedule import numeric_schedule as numeric_schedule
from tikhon.measures.refined_schedule import refined_schedule as refined_schedule
from tikhon.measures.sgd_stability import Stability as Stability
from tikhon.measures.sgd_stability import path_norm as path_norm
from tikhon.measures.sgd_stability import sgd_stability as sgd_stability
from tikhon.measures.sharpness import LossHessian as LossHessian
from tikhon.measures.sharpness import Sharpness as Sharpness
from tikhon.measures.sharpness import sharpness as sharpness
from tikhon.measures.shift import FeatureShift as FeatureShift
from tikhon.measures.shift import TwoSample as TwoSample
from tikhon.measures.shift import classifier_two_sample as classifier_two_sample
from tikhon.measures.shift import feature_shift as feature_shift
from tikhon.measures.shift import holm as holm
from tikhon.methods.continual.ewc import EWC as EWC
from tikhon.methods.continual.l2_anchor import L2Anchor as L2Anchor
from tikhon.methods.continual.lwf import LwF as LwF
from tikhon.methods.continual.replay import Replay as Replay
from tikhon.methods.continual.si import SI as SI
from tikhon.methods.continual.virtual_outlier import VirtualOutlierReg as VirtualOutlierReg
from tikhon.methods.divergence.monge_gap import MongeGap as MongeGap
from tikhon.methods.domains.bang import BANG as BANG
from tikhon.methods.domains.coral import CORAL as CORAL
from tikhon.methods.domains.dann import DANN as DANN
from tikhon.methods.domains.eata import EATA as EATA
from tikhon.methods.domains.fishr import Fishr as Fishr
from tikhon.methods.domains.group_dro import GroupDRO as GroupDRO
from tikhon.methods.domains.hessian_align import HessianAlignment as HessianAlignment
from tikhon.methods.domains.irm import IRM as IRM
from tikhon.methods.domains.mmd import MMD as MMD
from tikhon.methods.domains.vrex import VREx as VREx
from tikhon.methods.dynamics.agc import AdaptiveGradientClipping as AdaptiveGradientClipping
from tikhon.methods.dynamics.asam import ASAM as ASAM
from tikhon.methods.dynamics.clip_grad_norm import ClipGradNorm as ClipGradNorm
from tikhon.methods.dynamics.clip_grad_value import ClipGradValue as ClipGradValue
from tikhon.methods.dynamics.ema import EMA as EMA
from tikhon.methods.dynamics.ghost_bn import GhostBatchNorm as GhostBatchNorm
from tikhon.methods.dynamics.gradient_centralisation import GradientCentralisation as GradientCentralisation
from tikhon.methods.dynamics.gradient_noise import GradientNoise as GradientNoise
from tikhon.methods.dynamics.perp_grad import PerpGrad as PerpGrad
from tikhon.methods.dynamics.sam import SAM as SAM
from tikhon.methods.dynamics.stablemax import StableMax as StableMax
from tikhon.methods.dynamics.swa import SWA as SWA
from tikhon.methods.features.barlow_twins import BarlowTwins as BarlowTwins
from tikhon.methods.features.cs_ib import CSInformationBottleneck as CSInformationBottleneck
from tikhon.methods.features.dr_tune import DRTune as DRTune
from tikhon.methods.features.mixed_barlow_twins import MixedBarlowTwins as MixedBarlowTwins
from tikhon.methods.features.supcon import SupCon as SupCon
from tikhon.methods.features.vib import VIB as VIB
from tikhon.methods.features.vicreg import VICReg as VICReg
from tikhon.methods.fields.coherent_splats import CoherentDecoderReg as CoherentDecoderReg
from tikhon.methods.fields.intertwined import IntertwinedReg as IntertwinedReg
from tikhon.methods.generative.contractive import ReconstructionContractive as ReconstructionContractive
from tikhon.methods.generative.repa import REPA as REPA
from tikhon.methods.lowrank.pissa import PiSSA as PiSSA
from tikhon.methods.lowrank.sorsa import SORSA as SORSA
from tikhon.methods.mixing.adamixup import AdaMixUp as AdaMixUp
from tikhon.methods.mixing.cutmix import CutMix as CutMix
from tikhon.methods.mixing.cutout import Cutout as Cutout
from tikhon.methods.mixing.manifold_mixup import ManifoldMixup as ManifoldMixup
from tikhon.methods.mixing.mixup import MixUp as MixUp
from tikhon.methods.mixing.random_erasing import RandomErasing as RandomErasing
from tikhon.methods.physics.solver_reg import SolverHeuristicReg as SolverHeuristicReg
from tikhon.methods.preference.f_dpo import FDPO as FDPO
from tikhon.methods.preference.flex_dpo import FlexDPO as FlexDPO
from tikhon.methods.preference.mapo import MaPO as MaPO
from tikhon.methods.quantization.quant_nas import QuantNAS as QuantNAS
from tikhon.methods.robust.adversarial_training import AdversarialTraining as AdversarialTraining
from tikhon.methods.robust.awp import AWP as AWP
from tikhon.methods.robust.ibp import IBPTraining as IBPTraining
from tikhon.methods.robust.input_gradient import InputGradientPenalty as InputGradientPenalty
from tikhon.methods.robust.jacobian import JacobianPenalty as JacobianPenalty
from tikhon.methods.robust.trades import TRADES as TRADES
from tikhon.methods.robust.vat import VirtualAdversarialTraining as VirtualAdversarialTraining
from tikhon.methods.selection.co_teaching import CoTeaching as CoTeaching
from tikhon.methods.selection.data_diet import DataDiet as DataDiet
from tikhon.methods.sparsity.dhspg import DHSPG as DHSPG
from tikhon.methods.sparsity.l0 import L0 as L0
from tikhon.methods.sparsity.magnitude_pruning import MagnitudePruning as MagnitudePruning
from tikhon.methods.sparsity.mask_tuning import RegularizedMaskTuning as RegularizedMaskTuning
from tikhon.methods.sparsity.sara import SaRA as SaRA
from tikhon.methods.sparsity.wgsef import GroupSparseEnvelope as GroupSparseEnvelope
from tikhon.methods.stochastic.dropblock import DropBlock as DropBlock
from tikhon.methods.stochastic.dropconnect import DropConnect as DropConnect
from tikhon.methods.stochastic.dropout import Dropout as Dropout
from tikhon.methods.stochastic.gaussian_dropout import GaussianDropout as GaussianDropout
from tikhon.methods.stochastic.multi_sample_dropout import MultiSampleDropout as MultiSampleDropout
from tikhon.methods.stochastic.nested_dropout import NestedDropout as NestedDropout
from tikhon.methods.stochastic.policy_noise_mask import PolicyNoiseMask as PolicyNoiseMask
from tikhon.methods.stochastic.r_drop import RDrop as RDrop
from tikhon.methods.stochastic.spatial_dropout import SpatialDropout as SpatialDropout
from tikhon.methods.stochastic.stochastic_depth import StochasticDepth as StochasticDepth
from tikhon.methods.structure.soft_equivariance import EquivariancePenalty as EquivariancePenalty
from tikhon.methods.targets.class_relation_kd import ClassRelationKD as ClassRelationKD
from tikhon.methods.targets.confidence_penalty import ConfidencePenalty as ConfidencePenalty
from tikhon.methods.targets.elr import ELR as ELR
from tikhon.methods.targets.fix_match import FixMatch as FixMatch
from tikhon.methods.targets.focal_loss import FocalLoss as FocalLoss
from tikhon.methods.targets.gce import GeneralisedCrossEntropy as GeneralisedCrossEntropy
from tikhon.methods.targets.kd import KnowledgeDistillation as KnowledgeDistillation
from tikhon.methods.targets.label_smoothing import LabelSmoothing as LabelSmoothing
from tikhon.methods.targets.mean_teacher import MeanTeacher as MeanTeacher
from tikhon.methods.targets.ps_kd import PSKD as PSKD
from tikhon.methods.targets.sce import SymmetricCrossEntropy as SymmetricCrossEntropy
from tikhon.methods.unlearning.repulsion import RepulsionUnlearn as RepulsionUnlearn
from tikhon.methods.weights.elastic_net import ElasticNet as ElasticNet
from tikhon.methods.weights.l1 import L1 as L1
from tikhon.methods.weights.l2 import L2 as L2
from tikhon.methods.weights.orth_conv import OrthogonalConv as OrthogonalConv
from tikhon.methods.weights.spectral_norm import SpectralNorm as SpectralNorm
from tikhon.methods.weights.weight_compander import WeightCompander as WeightCompander
from tikhon.methods.weights.weight_norm import WeightNorm as WeightNorm
from tikhon.report.checkup import examine as examine
from tikhon.report.doctor import Doctor as Doctor
from tikhon.report.patient import Patient as Patient
from tikhon.solvers.continual.generative_kernel import GenerativeKernelReplay as GenerativeKernelReplay
from tikhon.solvers.inverse.hyres import hyres as hyres
from tikhon.solvers.structure.supervised_dictionary import SupervisedDictionary as SupervisedDictionary
from tikhon.solvers.transport.sinkhorn_newton_sparse import sinkhorn_newton_sparse as sinkhorn_newton_sparse
from tikhon.solvers.transport.sparse_ot import sparse_ot as sparse_ot
from tikhon.studies.dynamics.corrupted_grokking import inverse_participation_ratio as inverse_participation_ratio
from tikhon.studies.dynamics.one_epoch import steps_to_reach as steps_to_reach
from tikhon.studies.dynamics.scaling_crossover import crossover as crossover
from tikhon.studies.features.pretraining_advantage import factor_model as factor_model
from tikhon.tuning.autolrs import AutoLRS as AutoLRS
from tikhon.tuning.learned import Learned as Learned
from tikhon.tuning.lv_hba import LVHBA as LVHBA
from tikhon.tuning.maid import MAID as MAID
from tikhon.tuning.self_tuning import SelfTuningNetwork as SelfTuningNetwork
from tikhon.tuning.unimodal_bandit import UnimodalBanditSearch as UnimodalBanditSearch

__version__: str

__all__ = [
    "Card",
    "ClassLoss",
    "CustomLoss",
    "Diverged",
    "Doctor",
    "During",
    "History",
    "Learned",
    "Loss",
    "Method",
    "OneOf",
    "OutputLoss",
    "Part",
    "Patient",
    "PerSampleMemory",
    "Queue",
    "Recipe",
    "Schedule",
    "Selected",
    "Snapshot",
    "Step",
    "StepMean",
    "Strength",
    "Target",
    "Term",
    "Terms",
    "TikhonError",
    "ValueLoss",
    "Where",
    "cosine",
    "data",
    "examine",
    "exponential",
    "fit",
    "linear",
    "logistic",
    "no_loss",
    "select",
    "stepwise",
]
