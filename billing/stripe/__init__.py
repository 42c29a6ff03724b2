"""Stripe: the one place that talks to it, what it says, and what that comes to."""
