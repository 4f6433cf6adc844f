"""What code and steps cost: counts, one tracer, workspaces, the allocator's account, machines."""

from shoestring.measure.allocator import Measured as Measured
from shoestring.measure.allocator import measure_step as measure_step
from shoestring.measure.count import count as count
from shoestring.measure.counts import Count as Count
from shoestring.measure.counts import Counted as Counted
from shoestring.measure.counts import Row as Row
from shoestring.measure.counts import Totals as Totals
from shoestring.measure.diff import Change as Change
from shoestring.measure.diff import Difference as Difference
from shoestring.measure.diff import diff as diff
from shoestring.measure.machines import load_machine as load_machine
from shoestring.measure.machines import machine_names as machine_names
