"""Tests of quota: admission, grants, replay."""
