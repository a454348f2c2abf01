"""What stands in Redis, and under which keys.

All keys of a partition share its hash tag, so that a commit is atomic on a cluster too.

key                                       type    holds
{visitors:3}:book                         hash    epoch, run, commit; offset:<topic>, seen:<lane>:<partition>,
                                                  sent:<topic>:<partition>, paused, alerts_since (µs)
{visitors:3}:outbox                       list    messages committed and not yet known to be in Kafka, oldest first
{visitors:3}:e:<entity>                   string  an entity's parts, packed {name: value}; empty: spread out
{visitors:3}:p:<entity>                   hash    the parts of an entity that is spread out, one field each
{accounts:3}:credits:<conversion>:<dim>   hash    <day> or <day> NUL <value> → count and amount of each model (int64)
{accounts:3}:months:<conversion>:<dim>    hash    the same by month: <month> or <month> NUL <value>
{accounts:3}:counts:<table>               hash    field → its numbers (int64); models.counts
{accounts:3}:waiting                      hash    what waits to be booked NUL where → why
{accounts:3}:where:<label>                set     the accounts that carry a label (models.filters)
{accounts:3}:names                        hash    account → what it is called, where anybody says so
{accounts:3}:compact:<account>            string  what an account comes to; made by reports (streams.filtered)
{accounts:3}:newest                       list    the newest touches as JSON, newest first
{accounts:3}:warmth                       hash    account → its reading (models.reading)
{accounts:3}:warm:<state>                 zset    the accounts in a state, by log2(score) + time in half-lives
{accounts:3}:due                          zset    account → when something happens to it by itself (µs)
{accounts:3}:alerts                       list    the newest alerts as they were published, newest first
touchline:run                             string  number of the run; a rebuild begins another
touchline:live, :rules, :previews         streams.versions: other versions of the rules have {<name>.accounts:3}:…
touchline:pause                           string  while it lasts no new facts are taken (audit, rebuild)
touchline:workers:<instance>              string  a live worker's heartbeat, JSON; expires

Nothing else expires: a total is only as good as the state behind it.
"""

from models.cells import Cell
from models.hashes import Place
from models.settings import Settings

DAYS, MONTHS = "credits", "months"
"""The kinds of hashes that cells stand in."""
COUNTING_LANES = ("visitors", "members", "accounts")
"""The lanes that keep counts."""
SCANNED_AT_ONCE = 5000


def key(lane: str, partition: int, *names: str) -> str:
    """A key of a lane partition."""
    return ":".join((f"{{{lane}:{partition}}}", *names))


def table_key(settings: Settings, lane: str, partition: int, *names: str) -> str:
    """A key of a lane partition in the tables of these settings' version."""
    return key(settings.tables_of(lane), partition, *names)


def place_key(lane: str, partition: int, place: Place) -> str:
    """The hash of the cells that stand in one place."""
    conversion, dimension, is_by_month = place
    return key(lane, partition, MONTHS if is_by_month else DAYS, conversion, dimension)


def cell_of(conversion: str, dimension: str, field: bytes) -> Cell:
    """The cell that a field of the totals stands for."""
    day, split, value = field.decode().partition("\0")
    return Cell(conversion, dimension, day, value if split else None)
