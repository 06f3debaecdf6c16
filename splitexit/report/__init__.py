"""What people see: tables, pictures, run folders."""
