"""The studio: a local web app for people who don't write code, on the same functions as the command line."""
