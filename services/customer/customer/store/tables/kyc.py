"""KYC: cases, checklists, evidence, screening."""
