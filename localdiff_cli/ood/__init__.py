"""OOD estimation: where a slice holds something that healthy slices do not (PatchCore, and maps brought by the user)."""
