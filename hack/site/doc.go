// Command site builds the documentation as a static site: the Markdown pages of the repository, in the order of docs/README.md.
//
//	go run ./hack/site DIR
//
//	docs/README.md ─► index: sections with their pages ──────────┐
//	*.md           ─► page: headings, anchors, table of contents ├─► check ─► layout ─► DIR/*.html, style.css
//	                  link: pages, pictures, files on GitHub ────┘                └──► DIR: pictures
//
// It writes nothing if a page has a fault: a page that is in no section or that no link reaches, a link to a page, heading or file
// that does not exist, or a table whose rows differ in their cells. The pages stay readable on GitHub, so anchors are those of
// GitHub. The site needs no script.
package main
