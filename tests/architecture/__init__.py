"""The house rules as code: a rule that no test can break is only advice."""
