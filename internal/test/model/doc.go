// Package model helps tests to say what policies mean without the code under test: it builds objects of the API, makes
// random clusters, judges packets by the words of the API (Oracle), and walks packets through a ruleset (Table).
package model
