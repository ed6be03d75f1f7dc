"""Figures as people read and look at them: tables, charts, sheets of pictures, the report page."""
