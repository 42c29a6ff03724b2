"""Quota admits: it joins limits and books in one step."""
