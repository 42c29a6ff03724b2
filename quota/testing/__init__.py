"""For tests of hosts: a clock that is set, a Comptroller in memory, and a check that the books are sound.

The fixtures `comptroller` and `clock` come by themselves once the package is installed (a pytest plug-in).
"""

from quota.testing.clock import FakeClock
from quota.testing.soundness import assert_books_sound

__all__ = ["FakeClock", "assert_books_sound"]
