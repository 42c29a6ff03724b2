"""Tests of selling through Stripe."""

import pytest

pytest.register_assert_rewrite("tests.stripe.scenario")
