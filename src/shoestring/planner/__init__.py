"""The spine: profile a step, plan what makes it fit, apply the plan, verify it."""

from shoestring.planner.oom import explain_oom as explain_oom
from shoestring.planner.plan import Plan as Plan
from shoestring.planner.planning import plan as plan
from shoestring.planner.profiling import profile as profile
