"""The project's own training of the embedded backbone. Not part of what users install; see README.md beside this file."""
