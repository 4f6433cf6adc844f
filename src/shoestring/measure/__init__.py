"""What a step costs: one tracer, kernel workspaces, the allocator's own account, machines."""

from shoestring.measure.allocator import Measured as Measured
from shoestring.measure.allocator import measure_step as measure_step
from shoestring.measure.machines import load_machine as load_machine
from shoestring.measure.machines import machine_names as machine_names
