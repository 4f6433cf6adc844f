"""Training by forward passes alone: zeroth-order optimizers, at the memory of inference."""

from shoestring.zeroth.adam import ZOAdam as ZOAdam
from shoestring.zeroth.estimate import Estimate as Estimate
from shoestring.zeroth.estimate import estimate_gradient as estimate_gradient
from shoestring.zeroth.log import Log as Log
from shoestring.zeroth.monitor import NoiseWarning as NoiseWarning
from shoestring.zeroth.muon import SamplingMuon as SamplingMuon
from shoestring.zeroth.muon import ZOMuon as ZOMuon
from shoestring.zeroth.oracle import BudgetExceeded as BudgetExceeded
from shoestring.zeroth.oracle import Oracle as Oracle
from shoestring.zeroth.replay import replay as replay
from shoestring.zeroth.sgd import ZOSGD as ZOSGD
from shoestring.zeroth.sign import ZOSign as ZOSign
from shoestring.zeroth.survey import Survey as Survey
from shoestring.zeroth.survey import suggest as suggest
from shoestring.zeroth.survey import survey as survey
