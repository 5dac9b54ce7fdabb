"""The application: find it, import it, recognise it, and call its functions around contexts."""
