"""What code and steps cost: counts, one tracer, workspaces, the allocator's account, machines."""

from shoestring.measure.counting.count import count as count
from shoestring.measure.counting.counts import Count as Count
from shoestring.measure.counting.counts import Counted as Counted
from shoestring.measure.counting.counts import Row as Row
from shoestring.measure.counting.counts import Totals as Totals
from shoestring.measure.counting.diff import Change as Change
from shoestring.measure.counting.diff import Difference as Difference
from shoestring.measure.counting.diff import diff as diff
from shoestring.measure.timing.machines import load_machine as load_machine
from shoestring.measure.timing.machines import machine_names as machine_names
from shoestring.measure.tracing.allocator import Measured as Measured
from shoestring.measure.tracing.allocator import measure_step as measure_step
