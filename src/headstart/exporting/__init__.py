"""A trained model in a form that others can run, with a certificate that it still answers the same."""
