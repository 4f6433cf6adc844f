"""The words all rooms share: budgets, traces, profiles, techniques, machines, errors."""

from shoestring.core.budget import Budget as Budget
from shoestring.core.errors import AssumptionWarning as AssumptionWarning
from shoestring.core.errors import InfeasibleError as InfeasibleError
from shoestring.core.errors import InputError as InputError
from shoestring.core.errors import NoEffectWarning as NoEffectWarning
from shoestring.core.errors import RefusedError as RefusedError
from shoestring.core.errors import ShoestringError as ShoestringError
from shoestring.core.fidelity import Fidelity as Fidelity
from shoestring.core.machine import Machine as Machine
from shoestring.core.profile import Profile as Profile
from shoestring.core.technique import Technique as Technique
from shoestring.core.trace import Trace as Trace
