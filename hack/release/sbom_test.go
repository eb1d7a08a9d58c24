package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"regexp"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
)

// testSBOM checks the fields that SPDX 2.3 requires, that all references lead to elements of the document, and that each module of
// each program is there.
func testSBOM(t *testing.T, dir string) {
	data := read(t, dir, "sbom.spdx.json")
	if _, err := spdxjson.Read(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	var doc struct {
		SPDXVersion, DataLicense, SPDXID, Name, DocumentNamespace string
		CreationInfo                                              struct {
			Created  string
			Creators []string
		}
		Packages []struct {
			SPDXID, Name, DownloadLocation, VersionInfo string
			FilesAnalyzed                               *bool
			ExternalRefs                                []struct{ ReferenceCategory, ReferenceType, ReferenceLocator string }
		}
		Relationships []struct{ SPDXElementID, RelatedSPDXElement, RelationshipType string }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	// The clauses of the specification that require each field are 6.1 to 6.5, 6.8, 6.9, 7.1, 7.2, 7.7 and 7.8.
	match := func(field, value, pattern string) {
		t.Helper()
		if !regexp.MustCompile("^" + pattern + "$").MatchString(value) {
			t.Errorf("%s is %q", field, value)
		}
	}
	match("spdxVersion", doc.SPDXVersion, `SPDX-2\.3`)
	match("dataLicense", doc.DataLicense, `CC0-1\.0`)
	match("SPDXID", doc.SPDXID, `SPDXRef-DOCUMENT`)
	match("name", doc.Name, `.+`)
	match("documentNamespace", doc.DocumentNamespace, `https://[^#]+`)
	match("created", doc.CreationInfo.Created, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	if len(doc.CreationInfo.Creators) == 0 {
		t.Error("no creators")
	}
	for _, creator := range doc.CreationInfo.Creators {
		match("creator", creator, `(Tool|Organization|Person): .+`)
	}
	known, purls := map[string]bool{doc.SPDXID: true}, map[string]bool{}
	for _, p := range doc.Packages {
		match("SPDXID of "+p.Name, p.SPDXID, `SPDXRef-[a-zA-Z0-9.-]+`)
		match("name of "+p.SPDXID, p.Name, `.+`)
		match("downloadLocation of "+p.Name, p.DownloadLocation, `NOASSERTION|NONE|https://.+`)
		// Without a verification code, filesAnalyzed must be false, and its default is true.
		if p.FilesAnalyzed == nil || *p.FilesAnalyzed {
			t.Errorf("%s: filesAnalyzed is not false", p.Name)
		}
		if known[p.SPDXID] {
			t.Errorf("%s is there twice", p.SPDXID)
		}
		known[p.SPDXID] = true
		for _, r := range p.ExternalRefs {
			match("category", r.ReferenceCategory, `PACKAGE-MANAGER`)
			match("type", r.ReferenceType, `purl`)
			purls[r.ReferenceLocator] = true
		}
	}
	described := 0
	for _, r := range doc.Relationships {
		if !known[r.SPDXElementID] || !known[r.RelatedSPDXElement] {
			t.Errorf("%s %s %s: an element is missing", r.SPDXElementID, r.RelationshipType, r.RelatedSPDXElement)
		}
		if r.RelationshipType == "DESCRIBES" {
			described++
		}
	}
	if want := len(architectures) + len(testPlatforms); described != want {
		t.Errorf("the document describes %d programs, want %d", described, want)
	}
	programs := map[string][]byte{}
	for _, arch := range architectures {
		programs[binaryName(arch)] = read(t, dir, binaryName(arch))
	}
	for _, p := range testPlatforms {
		programs[pluginArchive(p)] = []byte(untar(t, gunzip(t, read(t, dir, pluginArchive(p))))[pluginFile(p)])
	}
	for name, program := range programs {
		info, err := buildinfo.Read(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Deps) < 20 {
			t.Fatalf("%s: %d modules", name, len(info.Deps))
		}
		for _, m := range info.Deps {
			if !purls["pkg:golang/"+m.Path+"@"+m.Version] {
				t.Errorf("%s: %s %s is missing", name, m.Path, m.Version)
			}
		}
	}
}
